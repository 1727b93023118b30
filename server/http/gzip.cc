#include "server/http/gzip.h"

#include <zlib.h>

#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr int kGzipWindow = 15 + 16;  // 16 asks for the gzip wrapper.

}  // namespace

std::string Gzip(absl::string_view text) {
  z_stream stream{};
  constexpr int kLevel = 4;  // Metrics pages: a third of the time of level 6 for about a tenth more bytes.
  MMLAB_CHECK(deflateInit2(&stream, kLevel, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  MMLAB_CHECK(result == Z_STREAM_END);
  return out;
}

std::optional<std::string> Gunzip(absl::string_view packed, size_t max_bytes) {
  z_stream stream{};
  MMLAB_CHECK(inflateInit2(&stream, kGzipWindow) == Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  int result = Z_OK;
  while (result == Z_OK && out.size() <= max_bytes) {
    const size_t have = out.size();
    out.resize(have + 16384);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + have);
    stream.avail_out = static_cast<uInt>(out.size() - have);
    result = inflate(&stream, Z_NO_FLUSH);
    out.resize(out.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  if (result != Z_STREAM_END || stream.avail_in != 0 || out.size() > max_bytes) return std::nullopt;
  return out;
}

}  // namespace mmlab
