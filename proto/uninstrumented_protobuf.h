#ifndef MMLAB_PROTO_UNINSTRUMENTED_PROTOBUF_H_
#define MMLAB_PROTO_UNINSTRUMENTED_PROTOBUF_H_

// Included before everything else in a build with ThreadSanitizer. There protobuf's map fields would have two members more, of which the
// installed library, built without it, knows nothing: so their header is read as if the sanitizer were off. <memory> comes first, since
// the standard library's answer to the same macro must stay as it is.
#include <memory>
#undef __SANITIZE_THREAD__
#include <google/protobuf/map_field.h>
#define __SANITIZE_THREAD__ 1

#endif  // MMLAB_PROTO_UNINSTRUMENTED_PROTOBUF_H_
