"""A service that says which thread answers, and how plait and the kernel show that thread meanwhile."""
import os
import subprocess
import threading

import plait


def look(request):
    inside = f"inside: ident {threading.get_ident():#x}, native id {threading.get_native_id()}\n"
    return inside + subprocess.run(["plait", "threads", str(os.getpid())], capture_output=True, text=True).stdout


plait.serve("who", {"look": look}, threads=2)
