"""Read what a file says about its own origin.

Metadata is easily removed or forged, so findings never change the model's verdict.
"""

from PIL import Image

from real_vs_ai.core.file_structure import find_excess
from real_vs_ai.provenance.cameras import find_camera, find_screenshot
from real_vs_ai.provenance.content_credentials import read_content_credentials
from real_vs_ai.provenance.fields import read_fields
from real_vs_ai.provenance.findings import (
    Camera,
    Code,
    FileSays,
    Finding,
    Origin,
    Seal,
    describe_origin,
)
from real_vs_ai.provenance.labels import find_labels, find_names
from real_vs_ai.provenance.metadata import Entry, Metadata, read_metadata, read_place
from real_vs_ai.provenance.settings import find_settings
from real_vs_ai.provenance.trust_lists import read_trust_list
from real_vs_ai.provenance.watermarks import find_watermarks

__all__ = [
    "Camera",
    "Code",
    "Entry",
    "FileSays",
    "Finding",
    "Metadata",
    "Origin",
    "Seal",
    "describe_origin",
    "read_metadata",
    "read_place",
    "read_provenance",
    "read_trust_list",
]


def read_provenance(data: bytes, image: Image.Image | None = None) -> tuple[Finding, ...]:
    """What a file says of its origin, the strongest evidence first; () if unreadable.

    A file with more parts than `find_excess` allows counts as unreadable.

    Args:
        image: The file's decoded pixels, mode RGB, to look for watermarks and compare the
            camera's preview with; None: do neither.

    Raises:
        InputError: The list of trusted signers cannot be read; see `read_trust_list`.
    """
    if find_excess(data):
        return ()
    fields = read_fields(data)
    settings = find_settings(fields)
    programs = {finding.generator for finding in settings}
    names = find_names(fields, read={finding.field for finding in settings})
    return (
        *read_content_credentials(data),
        *find_labels(fields),
        *settings,
        *(finding for finding in names if finding.generator not in programs),
        *(find_watermarks(image) if image else ()),
        *find_screenshot(fields),
        *find_camera(fields, data, image),
    )
