from typing import Any

HEAD: int

def view(
    body: Any, offset: int, size: int, told_dtype: str | None, told_shape: tuple[int, ...] | None, dtype: Any, shape: Any
) -> Any: ...
def lend(lender: Any, shape: Any, dtype: Any) -> Any: ...
