"""How kernels are compiled: what a kernel calls becomes part of it, before it is optimised.

numba optimises a function and generates its machine code when it is first called by another one,
and then again in each caller, and in theirs. Here a kernel that another one calls is translated to
LLVM's form alone; only what Python calls is optimised and generated, once and with all its parts.
This halves the time of compilation, and the machine code is as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import compiler, sigutils, typing
from numba.core.codegen import JITCodeLibrary
from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined]
from numba.core.registry import CPUDispatcher


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Code that is optimised and generated when the address of a function is asked for."""

    _generates = False

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        if self._generates:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        if self._generates:
            super()._finalize_final_module()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        if not self._generates:
            self._generates = True
            self._optimize_final_module()
            self._finalize_final_module()
        return int(super().get_pointer_to_function(name))


class _Compiler(_FunctionCompiler):  # type: ignore[misc]
    """Compiles a kernel, or translates a part of one."""

    def __init__(self, kernel: CPUDispatcher, is_part: bool) -> None:
        super().__init__(
            kernel.py_func,
            kernel.targetdescr,
            kernel.targetoptions,
            kernel.locals,
            compiler.Compiler,
        )
        self._is_part = is_part

    def _compile_core(self, args: Any, return_type: Any) -> Any:
        codegen = self.targetdescr.target_context.codegen()  # guarded by the compiler's lock
        before = codegen._library_class
        codegen._library_class = _Library
        try:
            return super()._compile_core(args, return_type)
        finally:
            codegen._library_class = before

    def _customize_flags(self, flags: Any) -> Any:
        if self._is_part:
            flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        return flags


class Kernel(CPUDispatcher):  # type: ignore[misc]
    """A function in machine code."""

    def __init__(self, function: Callable[..., Any], **options: bool | str) -> None:
        super().__init__(function, targetoptions={"nopython": True, **options})
        self._compiler = _Compiler(self, is_part=False)
        self._translator = _Compiler(self, is_part=True)
        self._parts: dict[tuple[Any, ...], Any] = {}

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Translates the kernel for another one that calls it; see numba's."""
        signature, args = self._compiler.fold_argument_types(args, kws)
        self._part(tuple(args))
        signatures = [part.signature for part in self._parts.values()]
        name = self.py_func.__name__
        template = typing.make_concrete_template(name, key=name, signatures=signatures)
        return template, signature, args, {}

    def get_overload(self, sig: Any) -> Any:
        """Returns the key of the translated kernel; see numba's."""
        return self._part(sigutils.normalize_signature(sig)[0]).fndesc

    def _part(self, args: tuple[Any, ...]) -> Any:
        part = self._parts.get(args)
        if part is None:
            part = self._parts[args] = self._translator.compile(args, None)
            self.targetctx.insert_user_function(part.fndesc, part.fndesc, [part.library])
        return part
