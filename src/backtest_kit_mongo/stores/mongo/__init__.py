"""The store on MongoDB, with an id cache in Redis."""
