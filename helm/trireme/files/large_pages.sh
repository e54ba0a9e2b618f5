file=${LARGE_PAGES_FILE:-/sys/kernel/mm/transparent_hugepage/enabled}
case "$(cat "${file}" 2>/dev/null)" in
  *"[madvise]"* | *"[always]"*) exit 0 ;;
esac
if [ "${LARGE_PAGES}" = set ] && echo madvise > "${file}"; then
  exit 0
fi
echo "This machine gives no large pages, and weights would be read at half the speed: echo madvise > ${file}" >&2
exit 1
