"""What the sinks for services of AWS share: SQS, SNS and EventBridge.

Each of these services takes several messages in one request and answers for each.
`batch_sink` cuts a call into requests, `batch_client` sends them and tells whom an error
blames, `entries` are the messages of a request, `message_entry` builds them for SQS and
SNS, `address` parses the common parameters of the URLs.
"""
