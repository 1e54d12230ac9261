"""Ends with 0 where the service at a port of this machine is ready: python alive.py PORT"""

import sys
import urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/v1/health/ready", timeout=4) as answer:
    sys.exit(answer.status != 200)
