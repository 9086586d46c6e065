"""Read what a file says about its own origin.

Metadata is easily removed or forged, so findings never change the verdict.
"""

from real_vs_ai.provenance.content_credentials import read_content_credentials
from real_vs_ai.provenance.fields import read_fields
from real_vs_ai.provenance.findings import Code, Finding, Origin, Seal, describe_origin
from real_vs_ai.provenance.source_types import describe_source_type, named_source_types
from real_vs_ai.provenance.traces import find_camera, find_generators

__all__ = ["Code", "Finding", "Origin", "Seal", "describe_origin", "read_provenance"]

_IPTC = Finding(Code.SOURCE, "IPTC", "")


def read_provenance(data: bytes) -> tuple[Finding, ...]:
    """What a file's metadata says of its origin, the strongest evidence first; () if unreadable."""
    fields = read_fields(data)
    source_types = named_source_types(fields.get("XMP", ""))
    said_by = "Its IPTC digital source type"
    return (
        *read_content_credentials(data),
        *(describe_source_type(name, said_by=said_by, common=_IPTC) for name in source_types),
        *find_generators(fields),
        *find_camera(fields),
    )
