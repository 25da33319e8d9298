"""Routers: Runnables from a `RoutingState` to a `Decision`."""
