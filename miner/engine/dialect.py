"""Where ComfyUI's versions differ on the wire. Pure data; what is not named here is the same in both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one version of ComfyUI behaves."""

    version: str  # as /system_stats reports it
    canonical_ids: bool  # a prompt_id must be a canonical lower-case UUID
    checks_named_combos: bool  # ["COMBO", {"options": […]}] is checked at submission, and not only when the node runs
    names_missing_nodes: bool  # an unknown node is `missing_node_type`, and not `invalid_prompt`
    finds_cycles: bool  # a cycle is reported as `dependency_cycle`
    jobs_api: bool  # /api/jobs exists
    dates_prompts: bool  # extra_data gets a create_time
    savers_pass_on: bool  # SaveImage and its kin return what they were given
    new_webp: bool  # SaveAnimatedWEBP's combo is of the second form; it does not say that a single frame is still
    new_combos: bool  # ImageToMask's combo is of the second form
    dynamic_combos: bool  # SaveVideo's choices are; CreateVideo knows of bit depths
    fuller_object_info: bool  # it has the newer keys
    previews_by_prompt: bool  # extra_data's preview_method overrules --preview-method
    throttles_progress: bool  # steps in quick succession are reported as one
    os_is_platform: bool  # /system_stats says "linux", and not "posix"


DIALECTS = {
    dialect.version: dialect
    for dialect in (
        Dialect(
            version="0.3.64",
            canonical_ids=False,
            checks_named_combos=False,
            names_missing_nodes=False,
            finds_cycles=False,
            jobs_api=False,
            dates_prompts=False,
            savers_pass_on=False,
            new_webp=False,
            new_combos=False,
            dynamic_combos=False,
            fuller_object_info=False,
            previews_by_prompt=False,
            throttles_progress=False,
            os_is_platform=False,
        ),
        Dialect(
            version="0.33.0",
            canonical_ids=True,
            checks_named_combos=True,
            names_missing_nodes=True,
            finds_cycles=True,
            jobs_api=True,
            dates_prompts=True,
            savers_pass_on=True,
            new_webp=True,
            new_combos=True,
            dynamic_combos=True,
            fuller_object_info=True,
            previews_by_prompt=True,
            throttles_progress=True,
            os_is_platform=True,
        ),
    )
}
NEWEST = "0.33.0"
