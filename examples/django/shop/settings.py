"""The settings of the shop. libpq reads host, user and password from PGHOST, PGUSER, PGPASSWORD."""

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "not-a-secret-on-your-own-machine")
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True

INSTALLED_APPS = ["dsql_outbox.django", "shop"]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "postgres"),
    }
}

DSQL_OUTBOX = {"SHARDS": 4}
