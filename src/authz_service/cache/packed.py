"""Scopes in few bytes: tokens in memory are many, and what they may do is read once for each lookup made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, overload

import msgspec

from authz_service.directory.model import NodeId
from authz_service.tokens.model import Reach, ReachKind, Scope

_Row: TypeAlias = tuple[str, ReachKind, tuple[NodeId, ...], tuple[str, ...]]

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[_Row]).decode


class PackedScopes(Sequence[Scope]):
    """The same scopes as a sequence that is unpacked each time it is read: some microseconds, so read it once."""

    __slots__ = ("_packed",)

    def __init__(self, scopes: Sequence[Scope]) -> None:
        self._packed = _pack([(one.catalog, one.reach.kind, one.reach.nodes, one.permissions) for one in scopes])

    def unpacked(self) -> tuple[Scope, ...]:
        return tuple(
            Scope(catalog, Reach(kind, nodes), permissions)
            for catalog, kind, nodes, permissions in _unpack(self._packed)
        )

    def __len__(self) -> int:
        return len(_unpack(self._packed))

    def __iter__(self) -> Iterator[Scope]:
        return iter(self.unpacked())

    @overload
    def __getitem__(self, index: int) -> Scope: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Scope]: ...
    def __getitem__(self, index: int | slice) -> Scope | Sequence[Scope]:
        return self.unpacked()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.unpacked() == tuple(other)

    def __hash__(self) -> int:
        return hash(self.unpacked())

    def __repr__(self) -> str:
        return repr(self.unpacked())
