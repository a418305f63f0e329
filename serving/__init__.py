"""Online shell: one ASGI app, run by Ray Serve or by uvicorn alone."""
