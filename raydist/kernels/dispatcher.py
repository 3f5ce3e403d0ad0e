"""How kernels are compiled: what a kernel calls becomes part of it, before it is optimised.

numba optimises a function and generates its machine code when it is first called by another one,
and then again in each caller, and in theirs. Here a kernel that another one calls is translated to
LLVM's form alone; only what Python calls is optimised and generated, once and with all its parts.
This halves the time of compilation, and the machine code is as fast.

What an operator returns for some types is found out once, not at each place, and passes for what
no kernel has (closures, `with`, literals as arguments) are left out: that is another sixth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import compiler, sigutils, typed_passes, types, typing, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined]
from numba.core.registry import CPUDispatcher

from raydist.kernels.ahead import begin


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


_UNUSED = {
    typed_passes.InlineOverloads,
    untyped_passes.FindLiterallyCalls,
    untyped_passes.InlineClosureLikes,
    untyped_passes.InlineInlinables,
    untyped_passes.LiteralPropagationSubPipelinePass,
    untyped_passes.LiteralUnroll,
    untyped_passes.MakeFunctionToJitFunction,
    untyped_passes.WithLifting,
}


class _Pipeline(compiler.CompilerBase):  # type: ignore[misc]
    """numba's passes, without those that find nothing in a kernel."""

    def define_pipelines(self) -> list[Any]:
        manager = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [each for each in manager.passes if each[0] not in _UNUSED]
        manager.finalize()
        return [manager]


_VALUES = (types.Number, types.Boolean, types.Array, types.Record)
_SIGNATURES: dict[tuple[Any, ...], Any] = {}


@contextmanager
def _remembered(context: Any) -> Iterator[None]:
    """Lets a typing context find the signature of a function for some types of values once."""
    before = vars(context).get("resolve_function_type")
    resolve = type(context).resolve_function_type

    def remember(function: Any, args: tuple[Any, ...], keywords: Any) -> Any:
        if keywords or not isinstance(function, types.Function):
            return resolve(context, function, args, keywords)
        if not all(isinstance(each, _VALUES) for each in args):
            return resolve(context, function, args, keywords)
        signature = _SIGNATURES.get((function, args))
        if signature is None:
            signature = resolve(context, function, args, keywords)
            _SIGNATURES[function, args] = signature
        return signature

    context.resolve_function_type = remember
    try:
        yield
    finally:
        if before is None:
            del context.resolve_function_type
        else:
            context.resolve_function_type = before


class _Compiler(_FunctionCompiler):  # type: ignore[misc]
    """Compiles a kernel, or translates a part of one."""

    def __init__(self, kernel: CPUDispatcher, is_part: bool) -> None:
        super().__init__(
            kernel.py_func,
            kernel.targetdescr,
            kernel.targetoptions,
            kernel.locals,
            _Pipeline,
        )
        self._is_part = is_part

    def _compile_core(self, args: Any, return_type: Any) -> Any:
        codegen = self.targetdescr.target_context.codegen()  # guarded by the compiler's lock
        before = codegen._library_class
        codegen._library_class = _Library
        try:
            with _remembered(self.targetdescr.typing_context):
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

    def compile(self, sig: Any) -> Any:
        """Compiles the kernel, or loads what another process has compiled; see numba's."""
        begin(f"{self.py_func.__module__}:{self.py_func.__name__}")
        return super().compile(sig)

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
