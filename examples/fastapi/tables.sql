CREATE TABLE IF NOT EXISTS balances (customer text PRIMARY KEY, orders int NOT NULL, total numeric NOT NULL);

-- What the read model of the target `revenue` keeps: see revenue.py.
CREATE TABLE IF NOT EXISTS revenue (
  day date PRIMARY KEY,
  orders int NOT NULL,
  total numeric(14, 2) NOT NULL
);
