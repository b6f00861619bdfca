"""Keywords in XMP side-cars, as exiftool, Lightroom and digiKam write them; pictures are never touched.

In: a `RunTable`. Out: beside each picture, or below DEST, a side-car with the cluster's name in `dc:subject` and
`interest|cluster` in `lr:hierarchicalSubject`. Promises: of a side-car that another program wrote, all else stays (its
other keywords, edits, comments); what an earlier export wrote is replaced, and `undo` takes it out again, because each
side-car lists our own keywords in a property of our name space; one that cannot be read safely is left alone.

Which file: the side-car that is there (`a.jpg.xmp`, or `a.xmp` where no other picture is called `a`); else `a.xmp` for
raw files, the only ones whose side-cars Lightroom reads, and `a.jpg.xmp` for others, as digiKam and Immich have it.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from xml.dom import minidom
from xml.etree.ElementTree import ParseError, canonicalize
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape, quoteattr

from manylens.errors import StoreError
from manylens.files import read_regular, write_atomically
from manylens.results.exports.run_table import Exported, RunTable
from manylens.text import printable

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

DC = "http://purl.org/dc/elements/1.1/"

LR = "http://ns.adobe.com/lightroom/1.0/"

OURS = "urn:manylens:xmp:1"

_RAW_NAMES = "3fr arw cr2 cr3 crw dcr dng erf iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 srw"

_RAW = frozenset(f".{name}" for name in _RAW_NAMES.split())

_MAX_BYTES = 32 << 20

_EMPTY = f"""<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='manylens'>
<rdf:RDF xmlns:rdf='{RDF}'>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end='w'?>
"""

_LISTS = ((DC, "dc", "subject"), (LR, "lr", "hierarchicalSubject"))
"""Where keywords are: name space, prefix, name. What we wrote there is listed as `dc:hearts`, `lr:suit|hearts`."""

Node: TypeAlias = Any
"""Of `minidom`: it keeps prefixes, comments and processing instructions, which ElementTree does not."""


def write_sidecars(run: RunTable, dest: Path | None, *, preview: bool = False, undo: bool = False) -> Exported:
    """dest: a folder for them, laid out like the pictures'; by default they lie beside the pictures. With undo, our
    keywords are taken out, and a side-car that holds nothing else goes."""
    root = run.pictures
    rows = list(zip(*(table.rows for table in run.tables), strict=True))
    stems = Counter(PurePosixPath(row[0].path).with_suffix("") for row in rows)
    left: list[tuple[str, str]] = []
    steps: list[str] = []
    for at in rows:
        path = PurePosixPath(at[0].path)
        pairs = [
            (t.clustering.interest.text, row) for t, row in zip(run.tables, at, strict=True) if row.cluster is not None
        ]
        found = [] if undo else [(_word(interest), _word(row.name)) for interest, row in pairs]
        if not os.path.lexists(root / path):
            left.append((printable(str(path)), "it is no longer there"))
            continue
        sidecar = _place(dest or root, path, is_only=stems[path.with_suffix("")] == 1)
        flat = sorted({name for _, name in found})
        deep = sorted({f"{interest}|{name}" for interest, name in found})
        try:
            before = read_regular(sidecar, follow=True) if sidecar.exists() else b""
            after = _with_keywords(before, flat, deep)
        except (ValueError, OSError) as error:
            left.append((printable(str(path)), f"its side-car {printable(sidecar.name)} is left alone: {error}"))
            continue
        if after == before:
            continue
        steps.append(f"{printable(str(sidecar))}: {', '.join(deep) or 'our keywords out'}")
        if not preview:
            try:
                _replace(sidecar, after)
            except (OSError, StoreError) as error:
                left.append((printable(str(path)), str(error)))
    return Exported(dest or root, len(steps), tuple(left), tuple(steps) if preview else ())


def _replace(sidecar: Path, content: bytes) -> None:
    real = Path(os.path.realpath(sidecar))  # a link stays one
    if not content:
        real.unlink()
        return
    mode = real.stat() if real.exists() else None
    write_atomically(real, content)
    if mode is not None:
        with contextlib.suppress(OSError):
            os.chmod(real, mode.st_mode & 0o7777)


def _place(folder: Path, path: PurePosixPath, *, is_only: bool) -> Path:
    long, short = folder / f"{path}.xmp", folder / path.with_suffix(".xmp")
    if long.exists():
        return long
    return short if is_only and (short.exists() or path.suffix.lower() in _RAW) else long


def _word(text: str) -> str:
    """`|` parts the levels of a keyword, and XML has no control characters."""
    return " ".join("".join(c if c.isprintable() and c != "|" else " " for c in text).split())


def _with_keywords(before: bytes, flat: Sequence[str], deep: Sequence[str]) -> bytes:
    """The side-car with these keywords of ours and no others of ours; empty where nothing is left that was not ours.
    Raises ValueError, with the reason, where it is no side-car that can be changed safely."""
    if not before and not deep:
        return b""
    document = _parse(before or _EMPTY.encode())
    (packet,) = document.getElementsByTagNameNS(RDF, "RDF")
    ours = _bags(packet, OURS, "keywords")
    earlier = {value for bag in ours for value in _values(bag)}
    kept = {space: _bags(packet, space, name) for space, _, name in _LISTS}
    present = {f"{prefix}:{value}" for space, prefix, _ in _LISTS for bag in kept[space] for value in _values(bag)}
    wanted = {DC: flat, LR: deep}
    said = {f"{prefix}:{value}" for space, prefix, _ in _LISTS for value in wanted[space]}
    if said - (present - earlier) == earlier and earlier <= present:
        return before  # nothing to change: not a byte of it is
    missing: list[tuple[str, str, str, Sequence[str]]] = []
    for space, prefix, name in _LISTS:
        for item in [item for bag in kept[space] for item in _items(bag) if f"{prefix}:{_text(item)}" in earlier]:
            _remove(item)
        new = [value for value in wanted[space] if f"{prefix}:{value}" not in present - earlier]
        if kept[space]:
            for value in new:
                item = document.createElementNS(RDF, f"{kept[space][0].prefix}:li")
                item.appendChild(document.createTextNode(value))
                kept[space][0].appendChild(item)
        elif new:
            missing.append((space, prefix, name, new))
        for bag in kept[space]:
            if not _items(bag):
                _remove(bag.parentNode)
    if said - (present - earlier):
        missing.append((OURS, "manylens", "keywords", sorted(said - (present - earlier))))
    about = next((node.getAttributeNS(RDF, "about") for node in _children(packet, RDF, "Description")), "")
    for bag in ours:
        described = bag.parentNode.parentNode
        _remove(bag.parentNode)
        if not any(child.nodeType == child.ELEMENT_NODE for child in described.childNodes):
            _remove(described)
    if missing:
        packet.appendChild(document.importNode(_description(about, missing), True))
        packet.appendChild(document.createTextNode("\n"))
    if document.documentElement.getAttributeNS("adobe:ns:meta/", "xmptk") == "manylens" and not _children(
        packet, RDF, "Description"
    ):
        return b""
    return _written(document)


def _written(document: Node) -> bytes:
    return "".join(f"{node.toxml()}\n" for node in document.childNodes).encode()


def _parse(content: bytes) -> Node:
    """The standard library's parser. Side-cars have no document type, so there are no entities to expand."""
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has {len(content):,} bytes")
    if any(
        mark in content for mark in (b"<!DOCTYPE", "<!DOCTYPE".encode("utf-16-le"), "<!DOCTYPE".encode("utf-16-be"))
    ):
        raise ValueError("it declares a document type")
    try:
        document: Node = minidom.parseString(content)
        if _canonical(content) != _canonical(_written(document)):  # an attribute with a line break, for one
            raise ValueError("it cannot be written back as it is")
    except (ExpatError, ParseError, LookupError) as error:
        raise ValueError(f"it is no XML ({error})") from None
    packets = document.getElementsByTagNameNS(RDF, "RDF")
    if len(packets) != 1:
        raise ValueError("it has no packet of XMP, or several")
    for described in _children(packets[0], RDF, "Description"):
        for space, prefix, name in (*_LISTS, (OURS, "manylens", "keywords")):
            lists = [_children(element, RDF, "Bag", "Seq", "Alt") for element in _children(described, space, name)]
            if described.hasAttributeNS(space, name) or any(len(found) != 1 for found in lists):
                raise ValueError(f"its {prefix}:{name} is no list of keywords")
    return document


def _canonical(content: bytes) -> str:
    return canonicalize(from_file=io.BytesIO(content), with_comments=True)


def _description(about: str, properties: Sequence[tuple[str, str, str, Sequence[str]]]) -> Node:
    """An `rdf:Description` of its own for what the side-car lacks: XMP allows several about one picture."""
    spaces = "".join(f" xmlns:{prefix}='{space}'" for space, prefix, _, _ in properties)
    lines = [f"<rdf:Description xmlns:rdf='{RDF}' rdf:about={quoteattr(about)}{spaces}>"]
    for _, prefix, name, values in properties:
        items = "".join(f"\n   <rdf:li>{escape(value)}</rdf:li>" for value in values)
        lines.append(f" <{prefix}:{name}>\n  <rdf:Bag>{items}\n  </rdf:Bag>\n </{prefix}:{name}>")
    return minidom.parseString("\n".join([*lines, "</rdf:Description>"]).encode()).documentElement


def _children(node: Node, space: str, *names: str) -> list[Node]:
    return [
        c for c in node.childNodes if c.nodeType == c.ELEMENT_NODE and c.namespaceURI == space and c.localName in names
    ]


def _bags(packet: Node, space: str, name: str) -> list[Node]:
    return [
        bag
        for described in _children(packet, RDF, "Description")
        for element in _children(described, space, name)
        for bag in _children(element, RDF, "Bag", "Seq", "Alt")
    ]


def _items(bag: Node) -> list[Node]:
    return _children(bag, RDF, "li")


def _text(node: Node) -> str:
    return "".join(
        child.data for child in node.childNodes if child.nodeType in (child.TEXT_NODE, child.CDATA_SECTION_NODE)
    )


def _values(bag: Node) -> list[str]:
    return [_text(item) for item in _items(bag)]


def _remove(node: Node) -> None:
    before = node.previousSibling
    if before is not None and before.nodeType == before.TEXT_NODE and not before.data.strip():
        node.parentNode.removeChild(before)
    node.parentNode.removeChild(node)
