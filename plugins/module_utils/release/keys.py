# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Keys on disk: private ones with tight permissions, trusted public ones, passphrases that are never arguments."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import crypto
from .digests import PathLike, open_regular, read_limited
from .errors import ReleaseError

_MAX_PEM = 1024 * 1024
_MAX_PASSPHRASE = 4096
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def read_secret(path: PathLike, limit: int) -> bytes:
    """Return the bytes of a file with a secret, refusing one that group or others can read or write.

    A symlink is followed (mounted secrets are links); what is checked is the opened file. Raises ReleaseError.
    """
    with open_regular(path, follow=True) as source:
        mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
        if mode & 0o077:
            raise ReleaseError(
                f"{os.fspath(path)}: holds a secret but has mode {mode:04o}; run: chmod 600 {os.fspath(path)}"
            )
        raw = source.read(limit + 1)
    if len(raw) > limit:
        raise ReleaseError(f"{os.fspath(path)}: is larger than the {limit} bytes allowed")
    return raw


def passphrase_from(file: PathLike | None = None, env: str | None = None) -> bytes | None:
    """Return a passphrase read from a file or from an environment variable; None when neither is named.

    :param file: path; only its owner may have access; one newline at the end is cut off
    :param env: name of the variable

    Raises ReleaseError when both are named, the file is open to others, the variable is not set, or it is empty.
    """
    if file and env:
        raise ReleaseError("passphrase: name either a file or an environment variable, not both")
    if file:
        where, passphrase = os.fspath(file), read_secret(file, _MAX_PASSPHRASE)
        passphrase = passphrase[:-1] if passphrase.endswith(b"\n") else passphrase
    elif env:
        where = f"environment variable {env}"
        if env not in os.environ:
            raise ReleaseError(f"{where}: is not set; export it to the process that signs")
        passphrase = os.environ[env].encode("utf-8", "surrogateescape")
    else:
        return None
    if not passphrase:
        raise ReleaseError(f"{where}: the passphrase is empty")
    return passphrase


def parse_private_key(pem: bytes, passphrase: bytes | None, where: str) -> Any:
    """Return the EC private key in PEM bytes; raises ReleaseError telling a missing from a wrong passphrase."""
    crypto.require()
    try:
        key = crypto.serialization.load_pem_private_key(pem, password=passphrase)
    except TypeError as error:
        # Raised exactly when a passphrase is missing, or given for a key that is not encrypted.
        fix = "is encrypted: name its passphrase" if passphrase is None else "is not encrypted: name no passphrase"
        raise ReleaseError(f"{where}: the private key {fix}") from error
    except (ValueError, crypto.exceptions.UnsupportedAlgorithm) as error:
        reason = "cannot be read as a PEM private key" + (" with this passphrase" if passphrase else "")
        raise ReleaseError(f"{where}: {reason}") from error
    return crypto.check_ec(key, where)


def load_private_key(path: PathLike, passphrase: bytes | None = None) -> Any:
    """Return the EC private key (P-256, P-384, P-521) in a PEM file that only its owner can access.

    Raises ReleaseError: missing, open to group or others, not PEM, wrong or missing passphrase, other kind of key.
    """
    return parse_private_key(read_secret(path, _MAX_PEM), passphrase, os.fspath(path))


def parse_public_key(pem: bytes, where: str) -> Any:
    """Return the EC public key in PEM bytes. Raises ReleaseError, also for a private key put there by mistake."""
    crypto.require()
    if b"PRIVATE KEY" in pem:
        raise ReleaseError(f"{where}: holds a private key; put the public key there and treat this one as exposed")
    if pem.count(b"-----BEGIN ") != 1:
        raise ReleaseError(f"{where}: has to hold exactly one PEM public key")
    try:
        key = crypto.serialization.load_pem_public_key(pem)
    except (ValueError, crypto.exceptions.UnsupportedAlgorithm) as error:
        raise ReleaseError(f"{where}: cannot be read as a PEM public key") from error
    return crypto.check_ec(key, where)


def parse_certificates(pem: bytes, where: str) -> list[Any]:
    """Return the X.509 certificates in PEM bytes, in their order. Raises ReleaseError when there are none."""
    crypto.require()
    if b"PRIVATE KEY" in pem:
        raise ReleaseError(f"{where}: holds a private key beside the certificates; keep it in a file of its own")
    blocks = _CERTIFICATE.findall(pem)
    if not blocks or len(blocks) != pem.count(b"-----BEGIN "):
        raise ReleaseError(f"{where}: has to hold PEM certificates and nothing else")
    try:
        return [crypto.x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError as error:
        raise ReleaseError(f"{where}: cannot be read as PEM certificates ({error})") from error


def load_certificates(path: PathLike) -> list[Any]:
    """Return the certificates in a PEM file, in their order. Raises ReleaseError."""
    return parse_certificates(read_limited(path, _MAX_PEM, follow=True), os.fspath(path))


def public_pem(public_key: Any) -> bytes:
    """Return a public key as SubjectPublicKeyInfo PEM, the text that key ids are made of."""
    serialization = crypto.serialization
    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(public_key: Any) -> str:
    """Return the id of a public key: hex SHA-256 of its SPKI PEM text, as in the hint of an OMS bundle."""
    return hashlib.sha256(public_pem(public_key)).hexdigest()


def _read_trusted(path: str) -> bytes:
    """Read a file that says whom to trust, refusing one that everybody can write."""
    with open_regular(path, follow=True) as source:
        if stat.S_IMODE(os.fstat(source.fileno()).st_mode) & 0o002:
            raise ReleaseError(f"{path}: says whom to trust but everybody can write it; run: chmod o-w {path}")
    return read_limited(path, _MAX_PEM, follow=True)


def _pem_files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReleaseError(f"{directory}: cannot be read ({error.strerror})") from error
    return [os.path.join(directory, name) for name in names if name.endswith(".pem") and not name.startswith(".")]


@dataclass(frozen=True)
class Trust:
    """Whom a verifier trusts: public keys (several at a time, for rotation) and CA certificates."""

    keys: tuple[Any, ...] = ()
    roots: tuple[Any, ...] = ()

    @classmethod
    def load(cls, trust_dir: PathLike) -> Trust:
        """Read ``keys/*.pem`` and ``roots/*.pem`` below a directory.

        Raises ReleaseError when one cannot be read (a trust directory is never half used), can be written by
        everybody, or when there are none at all.
        """
        base = os.fspath(trust_dir)
        trust = cls.from_files(_pem_files(os.path.join(base, "keys")), _pem_files(os.path.join(base, "roots")))
        if not trust.keys and not trust.roots:
            raise ReleaseError(
                f"{base}: trusts nobody; put public keys into keys/*.pem or CA certificates into roots/*.pem"
            )
        return trust

    @classmethod
    def from_files(cls, public_keys: Iterable[PathLike] = (), ca_certificates: Iterable[PathLike] = ()) -> Trust:
        """Read PEM files: one public key each, any number of certificates each. Raises ReleaseError."""
        keys = [parse_public_key(_read_trusted(os.fspath(path)), os.fspath(path)) for path in public_keys]
        roots: list[Any] = []
        for path in ca_certificates:
            roots.extend(parse_certificates(_read_trusted(os.fspath(path)), os.fspath(path)))
        return cls(tuple(keys), tuple(roots))

    def key(self, wanted: str) -> Any:
        """Return the trusted public key with this id, or None."""
        for candidate in self.keys:
            if key_id(candidate) == wanted:
                return candidate
        return None


@dataclass(frozen=True)
class KeyState:
    """A key pair on disk: what changed, the id, and the public half as PEM text."""

    private_changed: bool
    public_changed: bool
    key_id: str
    public_pem: str

    @property
    def changed(self) -> bool:
        """Whether anything was (or in check mode would be) written."""
        return self.private_changed or self.public_changed


def private_pem(key: Any, passphrase: bytes | None = None) -> bytes:
    """Return a private key as PKCS#8 PEM, encrypted when a passphrase is given."""
    serialization = crypto.serialization
    encryption: Any = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _write_new(path: str, content: bytes, mode: int) -> None:
    """Create a file whole and durable, or not at all; never replace one."""
    directory = os.path.dirname(path) or "."
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".key-", dir=directory)  # mode 0600
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(content)
            sink.flush()
            os.fchmod(sink.fileno(), mode)
            os.fsync(sink.fileno())
        # A hard link fails when the name exists, where a rename would replace it.
        os.link(temporary, path)
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except FileExistsError as error:
        raise ReleaseError(f"{path}: appeared meanwhile; it is never overwritten") from error
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if temporary and os.path.lexists(temporary):
            os.unlink(temporary)


def _public_missing(public_path: str | None, public: Any) -> bool:
    """Tell whether the public file has to be written; raises ReleaseError when it holds something else."""
    if public_path is None or not os.path.lexists(public_path):
        return public_path is not None
    found = parse_public_key(read_limited(public_path, _MAX_PEM, follow=True), public_path)
    if key_id(found) != key_id(public):
        raise ReleaseError(
            f"{public_path}: holds the public key {key_id(found)}, not that of the private key; "
            "it is never overwritten: name another path, or move it away"
        )
    return False


def ensure_key(
    path: PathLike, public_path: PathLike | None = None, passphrase: bytes | None = None, check: bool = False
) -> KeyState:
    """Make sure an EC P-256 key pair is there: the private key (PKCS#8 PEM, 0600) and its public half (SPKI PEM, 0644).

    An existing private key is kept, whatever supported curve it is on; nothing is ever overwritten.

    :param check: write nothing, tell what would change (a new key's id is then the empty text)

    Raises ReleaseError when the existing key cannot be read (with this passphrase), is open to others, when the
    public file holds another key, or when only the public file is there.
    """
    crypto.require()
    private = os.fspath(path)
    public = None if public_path is None else os.fspath(public_path)
    if os.path.lexists(private):
        key = load_private_key(private, passphrase)
        missing = _public_missing(public, key.public_key())
        if missing and public is not None and not check:
            _write_new(public, public_pem(key.public_key()), 0o644)
        return KeyState(False, missing, key_id(key.public_key()), public_pem(key.public_key()).decode("ascii"))
    if public is not None and os.path.lexists(public):
        raise ReleaseError(f"{public}: is there, but its private key {private} is not; restore that, or move this away")
    if check:
        return KeyState(True, public is not None, "", "")
    key = crypto.ec.generate_private_key(crypto.ec.SECP256R1())
    _write_new(private, private_pem(key, passphrase), 0o600)
    if public is not None:
        _write_new(public, public_pem(key.public_key()), 0o644)
    return KeyState(True, public is not None, key_id(key.public_key()), public_pem(key.public_key()).decode("ascii"))


def generate_key(path: PathLike, public_path: PathLike | None = None, passphrase: bytes | None = None) -> str:
    """Create a new EC P-256 key pair and return its id. Raises ReleaseError when either file is there already."""
    if os.path.lexists(path):
        raise ReleaseError(f"{os.fspath(path)}: is there already; a key is never overwritten")
    return ensure_key(path, public_path, passphrase).key_id
