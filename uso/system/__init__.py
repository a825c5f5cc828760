"""What the machine around the program says, checked before it does harm.

network.py    proxies and certificates in the environment
launcher.py   which process this is among several
packages.py   why a package cannot be imported
threads.py    how the processor's threads wait, and how many there are
"""
