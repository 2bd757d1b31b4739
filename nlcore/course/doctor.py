"""`python -m nlcore.course.doctor`: is everything there that the course needs?"""

import sys

from nlcore.course.checkup import doctor

if __name__ == "__main__":
    sys.exit(0 if doctor() else 1)
