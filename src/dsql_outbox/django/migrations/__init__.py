"""The app's migrations, one for each release that changes the tables."""
