"""The brokers: one module or folder each. It knows the port (`publisher.sinks`) and the message.

`aws` is the part that the sinks of AWS share. A publisher finds a broker by the scheme of its URL:
the entry points ``dsql_outbox.sinks`` in pyproject.toml.
"""
