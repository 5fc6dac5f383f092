"""What an operator, or a program, asks and orders: failures, dead letters, replay."""
