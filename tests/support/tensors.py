"""Inference requests as JSON."""


def body(*tensors, **rest):
    return {"inputs": list(tensors), **rest}


def given(name, data, datatype="INT64", shape=None):
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape or [len(data)],
        "data": data,
    }
