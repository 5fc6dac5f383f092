CREATE TABLE IF NOT EXISTS balances (customer text PRIMARY KEY, orders int NOT NULL, total numeric NOT NULL);
CREATE TABLE IF NOT EXISTS counted (
    order_id uuid PRIMARY KEY, version bigint NOT NULL, place bigint GENERATED ALWAYS AS IDENTITY
);
