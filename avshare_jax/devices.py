"""The first look at the devices: what JAX cannot start is said in a sentence."""

import jax

from avshare_jax.settings import UserError, reason


def check_devices() -> None:
    """Starts JAX's backend; to be called before anything else that needs a device, and after `hosts.connect`.

    Raises:
      UserError: it cannot be started, as with `JAX_PLATFORMS` of another machine; says what is there instead.
    """
    try:
        jax.devices()
    except Exception as error:  # An AssertionError where the plugin is missing, else RuntimeError or the plugin's own.
        asked, why = jax.config.jax_platforms, reason(error).split(" (set JAX_PLATFORMS=")[0].rstrip(".")
        said = "it has no plugin for that" if isinstance(error, AssertionError) else why
        if not asked:
            raise UserError(
                f"JAX cannot start this machine's devices ({said}): set JAX_PLATFORMS=cpu to compute without them."
            ) from error
        raise UserError(
            f"JAX cannot start the devices that JAX_PLATFORMS={asked!r} asks for ({said}); {_there()}. "
            "Set JAX_PLATFORMS to what is there, or unset it, or install JAX for the other (BUILD.md)."
        ) from error


def _there() -> str:
    """What JAX finds where nothing is asked for."""
    jax.config.update("jax_platforms", "")
    try:
        return f"on this machine it finds {jax.device_count()} x {jax.default_backend()}"
    except Exception:  # As above.
        return "it finds none on this machine"
