"""Real MongoDB and Redis servers on this machine: single servers, a replica set, and an embedded pair over one data folder."""

from .processes import MongoServer, RedisServer, Server, mongo_uri
from .replica_set import ReplicaSet

__all__ = ["MongoServer", "RedisServer", "ReplicaSet", "Server", "mongo_uri"]
