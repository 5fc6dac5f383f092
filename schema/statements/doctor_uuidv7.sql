-- Whether the server makes ids that rise with time; ours are made by the client.
SELECT uuidv7()
