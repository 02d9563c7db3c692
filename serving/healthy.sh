# Does a service say 200? The health check of our images:
#
#     bash healthy.sh PORT PATH
#
# In bash, since it is asked every few seconds, for ever: starting Python for it costs thirty times as much.
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
read -r -t 4 _ status _ <&3 || exit 1
[ "$status" = 200 ]
