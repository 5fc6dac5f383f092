-- Text to bytes in the server.
SELECT convert_to('grün', 'UTF8')
