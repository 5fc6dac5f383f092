"""Erase what is stored of an entity. It stands on the writer and on the jobs of the publisher."""

from .erasures import Erasures

__all__ = ["Erasures"]
