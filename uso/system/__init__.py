"""What the machine and the interpreter around the program do, checked before it does harm.

network.py    proxies and certificates in the environment
launcher.py   which process this is among several
packages.py   why a package cannot be imported
garbage.py    the garbage collector, kept off what stays
threads.py    how the processor's threads wait, and how many there are
"""
