"""Speech for many clients at once: continuous batching, and the HTTP server on top of it."""
