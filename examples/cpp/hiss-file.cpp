// A file into a stream, block by block, and a stream into a file.
//
//   hiss-file write ADDRESS COLLECTION/STREAM FILE BLOCK_BYTES
//   hiss-file read ADDRESS COLLECTION/STREAM FILE
//
// HISS_TOKEN has the token. Writing sends blocks of BLOCK_BYTES with a column `angle` of a quarter of their index, begins
// again where the stream stands when the connection breaks, seals the stream, reads it back and compares. Reading prints
// a line for each block: index, time, digest, and the columns in hex.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "hiss.h"

namespace {

constexpr std::size_t kExtentBytes = 8 << 20;
constexpr int kExtentBlocks = 4096;
constexpr int kAttempts = 600;
constexpr auto kPause = std::chrono::milliseconds(100);

hiss::v1::StreamSpec spec_of(std::size_t block_bytes) {
  hiss::v1::StreamSpec spec;
  spec.mutable_frame()->set_dtype("|u1");
  spec.mutable_frame()->add_shape()->set_size(static_cast<std::int64_t>(block_bytes));
  spec.mutable_frame()->set_encoding("none");
  auto& column = *spec.add_columns();
  column.set_name("angle");
  column.set_dtype("<f8");
  column.set_unit("deg");
  spec.set_ack(hiss::v1::ACK_LEVEL_DURABLE);
  return spec;
}

// Everything that the server has not dealt with yet, in one session.
void send_rest(hiss::Connection& connection, const std::string& id, const std::string& bytes, std::size_t block_bytes) {
  hiss::Append append(connection, id);
  hiss::v1::Extent extent;
  auto& types = *extent.add_column_types();
  types.set_name("angle");
  types.set_dtype("<f8");
  for (std::size_t n = 0; n < bytes.size() / block_bytes; ++n) {
    const auto index = static_cast<std::int64_t>(n);
    if (append.handled(index)) continue;
    const double angle = static_cast<double>(index) / 4;
    hiss::add_block(extent, index, 1'000 * index, bytes.data() + n * block_bytes, block_bytes);
    extent.mutable_columns()->append(reinterpret_cast<const char*>(&angle), sizeof angle);
    if (extent.data().size() + block_bytes > kExtentBytes || extent.index_size() == kExtentBlocks) {
      append.send(std::move(extent));
      extent.Clear();  // the types of the columns are known from the first
    }
  }
  if (extent.index_size()) append.send(std::move(extent));
  const auto ack = append.finish();
  std::cerr << ack.durable() << " blocks are durable\n";
}

// Calls `work`, again and again while the server cannot be reached.
template <typename Work>
auto persist(Work work) {
  for (int attempt = 1;; ++attempt) {
    try {
      return work();
    } catch (const hiss::Error& error) {
      if (!error.may_go_on() || attempt == kAttempts) throw;
      std::cerr << error.what() << "; again\n";
      std::this_thread::sleep_for(kPause);
    }
  }
}

void write(hiss::Connection& connection, const std::string& collection, const std::string& name,
           const std::string& file, std::size_t block_bytes) {
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (block_bytes == 0 || bytes.empty() || bytes.size() % block_bytes)
    throw std::runtime_error(file + " has " + std::to_string(bytes.size()) + " bytes, which is no whole number of blocks");
  const auto id = persist([&] { return connection.create_stream(collection, name, spec_of(block_bytes)).id(); });
  persist([&] { send_rest(connection, id, bytes, block_bytes); });
  const auto stream = persist([&] { return connection.seal_stream(id); });
  const auto blocks = persist([&] {
    std::size_t at = 0;
    connection.read(id, [&](const hiss::v1::Extent& extent) {
      if (bytes.compare(at, extent.data().size(), extent.data()) != 0)
        throw std::runtime_error("what is read back from byte " + std::to_string(at) + " on is not what was written");
      at += extent.data().size();
    });
    if (at != bytes.size()) throw std::runtime_error("only " + std::to_string(at) + " bytes came back");
    return at / block_bytes;
  });
  std::cout << "sealed " << blocks << " blocks, digest " << stream.digest() << "\n";
}

void read(hiss::Connection& connection, const std::string& path, const std::string& file) {
  std::ofstream out(file, std::ios::binary);
  connection.read(connection.get_stream(path).id(), [&](const hiss::v1::Extent& extent) {
    out.write(extent.data().data(), static_cast<std::streamsize>(extent.data().size()));
    const int count = extent.index_size();
    const std::size_t row = extent.columns().size() / static_cast<std::size_t>(count);
    for (int n = 0; n < count; ++n) {
      const std::int64_t time_ns = extent.time_ns_size() ? extent.time_ns(n) : 0;
      std::printf("%lld %lld %016llx ", static_cast<long long>(extent.index(n)), static_cast<long long>(time_ns),
                  static_cast<unsigned long long>(extent.digest(n)));
      for (const char byte : extent.columns().substr(static_cast<std::size_t>(n) * row, row))
        std::printf("%02x", static_cast<unsigned char>(byte));
      std::printf("\n");
    }
  });
}

}  // namespace

int main(int count, char** arguments) {
  const bool writes = count == 6 && !std::strcmp(arguments[1], "write");
  const bool reads = count == 5 && !std::strcmp(arguments[1], "read");
  const std::string path = writes || reads ? arguments[3] : "";
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) {
    std::cerr << "hiss-file write ADDRESS COLLECTION/STREAM FILE BLOCK_BYTES\n"
                 "hiss-file read ADDRESS COLLECTION/STREAM FILE\n";
    return 2;
  }
  const char* token = std::getenv("HISS_TOKEN");
  try {
    hiss::Connection connection(arguments[2], token ? token : "");
    if (writes)
      write(connection, path.substr(0, slash), path.substr(slash + 1), arguments[4], std::stoul(arguments[5]));
    else
      read(connection, path, arguments[4]);
  } catch (const hiss::Error& error) {
    std::cerr << (error.name.empty() ? "error" : error.name) << ": " << error.what() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
