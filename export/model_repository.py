"""A model repository for NVIDIA Triton, and for what reads its layout (KServe): a bundle's graphs with the configuration of each.

Only the graphs: whoever asks the server sends the pixels that `Bundle.read` gives, and draws latents itself. A folder's name is
its model's, so that renaming a folder is all it takes to serve two bundles side by side.
"""

from pathlib import Path

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.manifest import GraphRecord, Role
from catvae.runtime.whole_folder import refuse_others, write_folder

ROLES: tuple[Role, ...] = ("classifier", "encoder", "decoder")
GRAPH, CONFIG, NAMES = "1/model.onnx", "config.pbtxt", "clusters.txt"
MARK = f"classifier/{CONFIG}"
"""A folder with this file, and no others than a repository's, may be replaced with --overwrite."""
FILES = (*(f"{role}/{name}" for role in ROLES for name in (GRAPH, CONFIG)), f"classifier/{NAMES}")
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
LARGEST_BATCH = 256
DELAY = 500
"""Microseconds that a request may wait for others to share its run."""


def write_repository(bundle: Path | None, output: Path, *, overwrite: bool = False) -> None:
    """Write the model repository of a bundle to a new folder; what is taken and raised is that of `web_page.write_page`."""
    loaded = Bundle.load(bundle)
    check_place(output, overwrite=overwrite)
    files: dict[str, bytes | str] = {f"classifier/{NAMES}": "".join(f"{name}\n" for name in loaded.names)}
    for role in ROLES:
        record = loaded.manifest.graphs[role]
        files[f"{role}/{GRAPH}"] = loaded.file(record)
        files[f"{role}/{CONFIG}"] = configuration(record, {"assignment": NAMES} if role == "classifier" else {})
    write_folder(output, files, overwrite=overwrite)


def check_place(output: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` when `output` holds anything that a repository may not take the place of."""
    refuse_others(output, FILES, MARK, "models", overwrite=overwrite)


def configuration(record: GraphRecord, labels: dict[str, str]) -> str:
    """`config.pbtxt` of a graph: its tensors without the batch axis, and requests joined into batches.

    Parameters
    ----------
    record : GraphRecord
    labels : dict
        For outputs whose columns have names, the file with a name per line: the server's classification extension answers with them.
    """
    lines = ['backend: "onnxruntime"', f"max_batch_size: {LARGEST_BATCH}"]
    for kind, tensors in (("input", record.inputs), ("output", record.outputs)):
        for tensor in tensors:
            named = f' label_filename: "{labels[tensor.name]}"' if tensor.name in labels else ""
            dims = ", ".join(str(size) for size in tensor.shape[1:])
            lines.append(f'{kind} {{ name: "{tensor.name}" data_type: {TYPES[tensor.dtype]} dims: [ {dims} ]{named} }}')
    lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY} }}")
    # The server runs several requests at once; threads within one run would wait for each other.
    lines.append('parameters { key: "intra_op_thread_count" value { string_value: "1" } }')
    return "\n".join(lines) + "\n"
