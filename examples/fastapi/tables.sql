CREATE TABLE IF NOT EXISTS balances (customer text PRIMARY KEY, orders int NOT NULL, total numeric NOT NULL);
