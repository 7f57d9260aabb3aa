from setuptools import setup

setup(package_dir={"adsq": "adsq", "adsq.kernels": "kernels"}, packages=["adsq", "adsq.data", "adsq.kernels"])
