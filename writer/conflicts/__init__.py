"""The conflict report of a writer process: which entities conflict, and what that costs.

`sketch` counts conflicts per entity in bounded memory. `conflict_log` decides when the
counts are stored, in one row per process. A call without a conflict counts nothing.
"""
