"""Parquet: columns keep their types; extra `[bulk]`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_safeguard.bulk.rows_file import Chunk, Results, RowError, RowsFile
from langchain_safeguard.errors import MissingExtraError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:
    raise MissingExtraError("pyarrow", "bulk") from error

_SCHEMA = {
    "safeguard_action": pa.string(),
    "safeguard_score": pa.float64(),
    "safeguard_categories": pa.list_(pa.string()),
    "safeguard_rule": pa.string(),
    "safeguard_decision_id": pa.string(),
    "safeguard_failed": pa.bool_(),
    "safeguard_unchecked": pa.list_(pa.string()),
    "safeguard_text": pa.string(),
}


class Parquet(RowsFile):
    """Apache Parquet; each part becomes a row group of the file that comes out."""

    @property
    def size(self) -> int:
        """Return the number of rows."""
        with self._opened() as file:
            return int(file.metadata.num_rows)

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Read the file."""
        with self._opened() as file:
            self.require(file.schema_arrow.names, None)
            position = 0
            try:
                for batch in file.iter_batches(rows):
                    table = pa.Table.from_batches([batch])
                    columns = {name: table[name].to_pylist() for name in self.columns}
                    position += len(table)
                    yield Chunk(table, columns, position)
            except (pa.ArrowException, OSError) as error:
                problem = f"cannot be read after row {position}: {type(error).__name__}"
                raise RowError(self.path, None, problem) from None

    def write(self, path: Path, checked: Iterable[tuple[Chunk, Results]], *, first: bool) -> None:
        """Write a part."""
        tables = [_extended(chunk.raw, results) for chunk, results in checked]
        if not tables:
            with self._opened() as file:
                tables = [_extended(file.schema_arrow.empty_table(), [])]
        pq.write_table(pa.concat_tables(tables), path)

    def join(self, parts: Sequence[Path], path: Path) -> None:
        """Write one file of all parts."""
        with pq.ParquetWriter(path, pq.read_schema(parts[0])) as out:
            for part in parts:
                out.write_table(pq.read_table(part))

    def _opened(self) -> Any:
        try:
            # Read piece by piece: a row group may be as large as the file.
            return pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise RowError(self.path, None, f"cannot be read: {type(error).__name__}") from None


def _extended(table: Any, results: Results) -> Any:
    for name, kind in _SCHEMA.items():
        table = table.append_column(name, pa.array([each[name] for each in results], kind))
    return table
