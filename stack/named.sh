# Is a service well, and does its name lead to it? A health check of swarm/stack.yaml:
#
#     sh named.sh NAME CHECK [ARGUMENT]...
#
# A Swarm tells a service's name to the others once its check has passed, and that name is all they have. Engines
# have been seen to lose it: version 20.10 when a machine comes back that stood still or was cut off while this one's
# engine was started anew, versions 29.0 to 29.6 whenever a machine comes back. What nobody finds is as good as dead
# and shall say so: the Swarm then replaces it, and with that its name is told again.
name=$1
shift
"$@" || exit 1

# Until the name was found once it is not yet told, and looking for it in vain may take longer than a check may.
found=${TMPDIR:-/tmp}/.found-by-name
if [ ! -e "$found" ]; then
    (getent hosts "$name" && : >"$found") >/dev/null 2>&1 &
    exit 0
fi
getent hosts "$name" >/dev/null && exit 0
echo "well, but the name $name, which was known, leads nowhere any more"
exit 1
