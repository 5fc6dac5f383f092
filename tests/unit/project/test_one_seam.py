"""What an error of the database means is decided in one module, and nowhere beside it."""

import re

from tests.support.checkout import ROOT, files_of

SEAM = "outbox/failure.py"
PRODUCT = ("observability/", "outbox/", "publisher/", "schema/", "src/", "writer/")

STATES = (
    r"08\w{3}|28000|28P01|3D000|3F000|53\w{3}|57P\d\d|XX000|OC00[01]"
    r"|23505|25006|40001|40003|40P01|42703|42710|42P0[167]|0A000|42601|42804"
)
CLASSES = (
    "SerializationFailure|DeadlockDetected|UndefinedTable|InvalidSchemaName|UndefinedColumn"
    "|UniqueViolation|InternalError_|OutOfMemory|ReadOnlySqlTransaction|DiskFull"
    "|TooManyConnections|ConfigurationLimitExceeded|AdminShutdown|CannotConnectNow"
    "|DatatypeMismatch|DuplicateSchema|DuplicateObject"
)
MEANING = re.compile(rf"[\"'](?:{STATES})[\"']|\berrors\.(?:{CLASSES})\b")

EXCUSES = {
    "observability/metric_names.py": "the values that an attribute of a metric may have",
    "outbox/errors.py": "a docstring: what a caller may catch",
    "src/dsql_outbox/testing/faults.py": "the test kit raises conflicts",
}


def deciding() -> set[str]:
    """The files of the product that name a state or its class."""
    return {
        str(path)
        for path in (path.relative_to(ROOT) for path in files_of() if path.suffix == ".py")
        if str(path).startswith(PRODUCT) and MEANING.search((ROOT / path).read_text())
    }


def test_no_module_beside_the_seam_decides_what_a_state_means() -> None:
    assert deciding() - {SEAM} == set(EXCUSES)
