"""On the path of processes that tests start: they lack what only tests need, as the programs of users do."""

raise ImportError("torchmetrics is a referee of the tests")
