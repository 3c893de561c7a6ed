"""Media types of Concordat's artifacts, and the names of their files that are not documents of this package."""

BASE_PACKAGE = "application/vnd.concordat.base-package.v1"
ADAPTER = "application/vnd.concordat.adapter.v1"
CONTRACT = "application/vnd.concordat.contract.v1"
UPDATE = "application/vnd.concordat.update.v1"
STATEMENT = "application/vnd.dev.sigstore.bundle.v0.3+json"
AGGREGATION_REQUEST = "application/vnd.concordat.aggregation-request.v1"
AGGREGATION_REPORT = "application/vnd.concordat.aggregation-report.v1"
LINEAGE = "application/vnd.in-toto.bundle"

STATEMENT_FILE = "statement.sigstore.json"
GRANT_FILE = "grant.sigstore.json"
"""Beside an update's statement: the gateway's grant to send it."""
REPORT_PICTURE_FILE = "report.svg"
LINEAGE_FILE = "lineage.intoto.jsonl"
SITE_STATEMENTS_FILE = "statements.intoto.jsonl"
"""Beside the aggregation report: updates and consents of the accepted sites, as lines of the lineage to come."""
DELTA_FILE = "delta.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"

MAX_STATEMENT = 24 << 10
"""Most bytes of a site's statement: two from each of 1000 sites, and the hub's own, stay within MAX_LINEAGE."""
MAX_GRANT = 8 << 10
"""Most bytes of a grant, one for each of them."""
MAX_LINEAGE = 64 << 20
"""Most bytes of a bundle of statements: a round's, up to its release."""
