"""A mongod with extra arguments, such as ``--auth``."""

from __future__ import annotations

from backtest_kit_mongo.servers import MongoServer


class ArgumentMongo(MongoServer):
    """A mongod with extra arguments."""

    __test__ = False

    def __init__(self, folder, *arguments, **others):
        super().__init__(folder, **others)
        self.more = arguments

    def _arguments(self):
        return [*super()._arguments(), *self.more]
