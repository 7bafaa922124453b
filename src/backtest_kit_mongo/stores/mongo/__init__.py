"""The store on MongoDB, with the ids of its documents in Redis."""
