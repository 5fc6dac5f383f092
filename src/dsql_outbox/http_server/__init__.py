"""The HTTP server of the commands: `publish --listen` and `console`.

- `server` serves an ASGI application and limits its clients.
- `request_head` parses requests.
- `hosts` is about the Host header of a request.
- `fixed_paths` makes an application of a few paths with short answers.

The reasons for a server of our own are in
docs/decisions/2026-11-27-one-http-server.md.
"""
