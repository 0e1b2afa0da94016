"""Stored streams as others see them: files (`filesystem`, fsspec), arrays of dask (`array`), datasets of xarray.

A client of a buffer like any other: everything is read by `hiss.store`. fsspec and xarray find these modules by their
entry points; `Stream.to_dask` and `Stream.to_xarray` import them when they are called.
"""
