"""The common part of the sinks for services of AWS: SQS, SNS and EventBridge.

Each of these services takes several messages in one request and answers for each.
`batch_sink` cuts a call into requests, and `batch_client` sends them and decides what an
error blames; it also parses the common parameters of the URLs. `message_entry` builds the
entries of SQS and SNS.
"""
