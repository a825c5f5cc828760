"""Model files on the Hugging Face Hub and in its cache on this disk.

files.py       which files a model needs, which are missing, download
cache.py       the cache folder: what of a component is here
listing.py     what a repository holds
transfer.py    one file over the network, resumed and verified
errors.py      failures of Hub, network and disk, as sentences
"""
