"""The HTTP and WebSocket interface of the serving engine."""
