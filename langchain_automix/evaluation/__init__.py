"""Judge a router or a check on a routing log. Imports `policy`, `routers` and lower floors."""
